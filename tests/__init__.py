"""The tests, in a folder for each package, and in ``worlds`` what they share."""
