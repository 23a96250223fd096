"""teleport.yaml: read, checked as a whole, and given as frozen values."""
