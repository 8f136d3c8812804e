"""The page's style sheet. Okabe-Ito colours, darkened or lightened to 3:1 against their background."""

CSS = """
:root{color-scheme:light dark;
--bg:#f7f8f7;--card:#fff;--ink:#16202a;--soft:#55616d;--line:#dde2e4;--grid:#e9edee;--ok:#00714f;
--okbg:#e3f4ed;
--doubt:#8f4a00;--doubtbg:#fdf0dc;--s1:#0072b2;--s2:#d55e00;--s3:#008a65;--s4:#b0528a;--s5:#967200;
--s6:#73808c;
--shade:#eceff1;--focus:#0072b2}
@media (prefers-color-scheme:dark){:root{
--bg:#10151a;--card:#182027;--ink:#e9edf0;--soft:#a3b0ba;--line:#2c3842;--grid:#25303a;--ok:#5fd3ab;
--okbg:#12352b;
--doubt:#f5b45c;--doubtbg:#3a2a12;--s1:#5cb8ec;--s2:#f58a4b;--s3:#3fc79d;--s4:#e09ac4;--s5:#dcb63c;
--s6:#8c99a5;
--shade:#222c35;--focus:#8fd0f5}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,"DejaVu Sans",
sans-serif}
main,header.top,footer{max-width:1120px;margin:0 auto;padding:0 24px}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--card);padding:8px 12px;
z-index:1}
a{color:var(--s1)}:focus-visible{outline:3px solid var(--focus);outline-offset:2px;border-radius:4px}
header.top{display:flex;justify-content:space-between;gap:16px;flex-wrap:wrap;padding-top:20px;
color:var(--soft);font-size:14px}
header.top b{color:var(--ink);letter-spacing:.01em}
h1{font-size:clamp(23px,3.2vw,34px);line-height:1.22;letter-spacing:-.018em;font-weight:650;
margin:10px 0 20px;max-width:30em;
text-wrap:balance}
h2{font-size:24px;line-height:1.25;letter-spacing:-.01em;margin:52px 0 6px}
h3{font-size:17px;margin:0 0 2px;line-height:1.3}h3.part{font-size:19px;margin:34px 0 8px}
p{margin:0 0 12px}.lead{color:var(--soft);max-width:46em}
.eyebrow{margin:26px 0 0;color:var(--soft);font-size:14px;font-weight:600}
.badge{border:1px solid;border-radius:12px;padding:11px 16px;margin:0 0 18px;background:var(--okbg);
border-color:var(--ok)}
.badge p{margin:0}.badge .note{color:var(--soft);font-size:14px;margin-top:6px}
.badge p strong{color:var(--ok);font-weight:650}
.badge.doubt{background:var(--doubtbg);border-color:var(--doubt)}
.badge.doubt p strong{color:var(--doubt)}
.badge ul{margin:6px 0 0;padding-left:20px;font-size:14.5px;line-height:1.45}.badge li{margin:2px 0}
.badge .remedy{color:var(--soft)}
.keys{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:1px;margin:0 0 16px;padding:0;
background:var(--card);
border:1px solid var(--line);border-radius:14px;overflow:hidden}
.keys>div{background:var(--card);box-shadow:0 0 0 1px var(--line);padding:14px 18px 13px}
.keys dt{color:var(--soft);font-size:13.5px;line-height:1.35}
.keys dd{margin:0}.keys .value{font-size:27px;font-weight:640;letter-spacing:-.02em;line-height:1.3;
font-variant-numeric:tabular-nums}
.keys .value small{font-size:15px;font-weight:500;color:var(--soft);letter-spacing:0}
.keys .more{color:var(--soft);font-size:13px;line-height:1.4}
.conditions{color:var(--soft);font-size:14.5px;max-width:62em}
.caveat{border-left:4px solid var(--doubt);padding:2px 0 2px 14px;color:var(--soft);font-size:14.5px;
max-width:62em;margin:18px 0 0}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:18px;margin-top:16px}
.panel{margin:0;background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:18px 20px 12px;min-width:0;
display:flex;flex-direction:column}
.panel figcaption{order:-1;margin-bottom:12px}
.panel figcaption p{color:var(--soft);font-size:14px;line-height:1.45;margin:0}
.panel>svg{width:100%;height:auto;max-width:560px;margin:0 auto;display:block}
.panel>details{margin-top:auto;padding-top:10px}
details>summary{cursor:pointer;color:var(--soft);font-size:14px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums;margin:8px 0}
td small,.main small{display:inline-block;max-width:9.5em;line-height:1.3;color:var(--soft)}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:13.5px}td.n,th.n{text-align:right}
thead th{vertical-align:bottom}tr:last-child>*{border-bottom:0}
tbody th{color:var(--ink);font-weight:600;font-size:inherit}
.main{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:6px 20px;
overflow-x:auto;margin:0 0 16px}
.main.compare tbody th{white-space:nowrap}.main td,.main th{padding-top:9px;padding-bottom:9px}
.key{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:8px}
.key.s1{background:var(--s1)}.key.s2{background:var(--s2)}.key.s3{background:var(--s3)}
.key.s4{background:var(--s4)}
.key.s5{background:var(--s5)}.key.s6{background:var(--s6)}
.word.ok{color:var(--ok);font-weight:600}.word.doubt{color:var(--doubt);font-weight:600}
.bar{display:block;height:6px;border-radius:3px;background:var(--s1);min-width:2px;margin-top:5px}
.barcell{width:24%}
.case{margin:0 0 22px}.case>h3{font-weight:600}.case>h3 span{color:var(--soft);font-weight:400;
font-size:14.5px}
.tiles{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:10px;margin-top:8px}
.tile{margin:0}.tile svg{width:100%;height:auto;display:block;background:#000;border-radius:8px}
.tile figcaption{font-size:13px;line-height:1.35;color:var(--soft);margin-top:5px}.tile b{color:var(--ink);
display:block;font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:6px 20px;font-size:14px;color:var(--soft);margin:4px 0 16px;
padding:0;list-style:none}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:7px;vertical-align:-1px;
border:1px solid #0006}
.swatch.hit{background:#b9c2c9}.swatch.alarm{background:#ff7f2a}.swatch.miss{background:#35b3ff}
.swatch.differ{background:#ff5fc4}
svg text{font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,"DejaVu Sans",sans-serif;
fill:var(--ink);
font-variant-numeric:tabular-nums}
svg .tick,svg .axis{fill:var(--soft)}svg .tick{font-size:12px}svg .axis{font-size:12.5px}
svg .total{font-size:21px;font-weight:640;letter-spacing:-.01em}
svg .small{font-size:12.5px;fill:var(--soft)}svg .strong{fill:var(--ink);font-weight:600}
svg .halo{paint-order:stroke;stroke:var(--card);stroke-width:5px;stroke-linejoin:round}
.grid line,svg .grid{stroke:var(--grid);stroke-width:1}
svg .base{stroke:var(--soft);stroke-width:1}
svg .bar{stroke:var(--soft);stroke-width:1.4;stroke-dasharray:5 4}
svg .marker{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
svg .link{stroke:var(--s2);stroke-width:1.6}
svg .front{fill:none;stroke:var(--soft);stroke-width:1.3;stroke-dasharray:4 4}
svg .warmup{fill:var(--shade)}svg .median{stroke:var(--ink);stroke-width:1.8}
svg .over{stroke:var(--s2);stroke-width:2}
svg .curve{fill:none;stroke-width:2.2;stroke-linejoin:round}
svg .dot{fill:none;stroke-width:2.2;stroke-linecap:round;stroke-opacity:.55}
svg .range{fill:none;stroke-width:1;stroke-opacity:.35}
svg .ring{fill:var(--card);stroke-width:1.7}
svg .stroke{stroke-width:2}
svg .s1{stroke:var(--s1)}svg .s2{stroke:var(--s2)}svg .s3{stroke:var(--s3)}svg .s4{stroke:var(--s4)}
svg .s5{stroke:var(--s5)}
svg .s6{stroke:var(--s6)}
svg .curve.s2{stroke-dasharray:8 3}svg .curve.s3{stroke-dasharray:2 3}svg .curve.s4{stroke-dasharray:10 3 2 3}
svg .curve.s5{stroke-dasharray:5 2}svg .curve.s6{stroke-dasharray:1 4}
svg .fill,svg .point{stroke:none}
svg .fill.s1,svg .point.s1{fill:var(--s1)}svg .fill.s2,svg .point.s2{fill:var(--s2)}
svg .fill.s3,svg .point.s3{fill:var(--s3)}
svg .fill.s4,svg .point.s4{fill:var(--s4)}svg .fill.s5,svg .point.s5{fill:var(--s5)}
svg .fill.s6,svg .point.s6{fill:var(--s6)}
svg .soft{fill-opacity:.38}
svg .truth{fill:#8fe36b;fill-opacity:.62}svg .pred{fill:#ffd23f;fill-opacity:.62}
svg .veil{fill:#000;fill-opacity:.5}svg .hit{fill:#b9c2c9;fill-opacity:.75}svg .alarm{fill:#ff7f2a}
svg .miss{fill:#35b3ff}
svg .differ{fill:#ff5fc4}
code,pre{font:13.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--shade);border-radius:10px;padding:12px 14px;overflow-x:auto;margin:6px 0 14px}
.hash{overflow-wrap:anywhere}
nav.toc{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:15px;margin:4px 0 8px}
article{border-top:2px solid var(--line);margin-top:56px}article>h2{font-size:clamp(20px,2.5vw,27px);
margin:8px 0 16px;max-width:32em;text-wrap:balance}
article h2.sub{font-size:20px;margin-top:38px}
footer{color:var(--soft);font-size:14px;padding-top:40px;padding-bottom:48px}
@media screen and (max-width:760px){main,header.top,footer{padding-left:16px;padding-right:16px}
.grid{grid-template-columns:minmax(0,1fr);gap:14px}
.panel{padding:15px 14px 10px}.tiles{grid-template-columns:repeat(3,minmax(0,1fr))}
.keys{grid-template-columns:repeat(2,minmax(0,1fr))}
svg text,svg .small,svg .tick,svg .axis{font-size:14.5px}svg .total{font-size:23px}
.keys>div{padding:11px 12px}.keys .value{font-size:23px}h2{margin-top:40px}.main{padding:4px 14px}}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--grid:#ddd;
--s1:#0072b2;--s2:#d55e00;
--s3:#008a65;--s4:#b0528a;--s5:#967200;--s6:#73808c;--shade:#eee;--ok:#00714f;--okbg:#fff;--doubt:#8f4a00;
--doubtbg:#fff}
@page{size:A4;margin:14mm}body{font-size:10.5pt}main,header.top,footer{max-width:none;padding:0}
.skip,nav.toc,details>summary{display:none}
.panel,.case,.keys,.badge,tr{break-inside:avoid}h2,h3{break-after:avoid}
h1{font-size:20pt}h2{font-size:15pt;margin-top:26px}.grid{gap:10px}.panel{padding:10px 12px}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
