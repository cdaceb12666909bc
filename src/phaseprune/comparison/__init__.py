"""Methods of choosing blocks side by side."""
