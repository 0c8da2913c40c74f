"""What this machine is: facts for the provenance of every result, and limits for the workers."""
