"""What runs on a board, copied into every Bundle as it is: predict, measure, build an engine."""
