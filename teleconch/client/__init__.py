"""What tsh is made of: profiles, keys, login, and the SSH client."""
