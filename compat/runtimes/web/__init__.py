"""What a browser needs to run graphs: a server on the loopback, a driver, and a page."""
