"""Scores of masks under named protocols: evaluation, comparison of two predictors, pictures, prediction."""
