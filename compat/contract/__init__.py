"""The contract: plain data and protocols that every other package shares."""
