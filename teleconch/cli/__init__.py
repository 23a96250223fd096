"""What people type: teleport, tsh, tctl."""
