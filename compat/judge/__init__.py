"""Judgement: results files, and the limits, expectations and rules they are held against."""
