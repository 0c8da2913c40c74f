"""What is said about a case: plain data and protocols that every other package shares."""
