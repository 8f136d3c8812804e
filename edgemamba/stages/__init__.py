"""From a trained network to an artifact a board can load: export, quantize, verify, package.

``source`` names what is exported, ``plan`` says what will happen, ``pipeline`` does it. Every stage is a
function from files and parameters to an ``artifact.Artifact``; ``cache`` keeps what it made under a hash of
everything it read.
"""
