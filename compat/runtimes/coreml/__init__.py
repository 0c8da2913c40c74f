"""Core ML, Apple's runtime: prediction on a Mac, and checks of conversions elsewhere."""
