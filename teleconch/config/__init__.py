"""teleport.yaml: read, checked as a whole, and returned as frozen values."""
