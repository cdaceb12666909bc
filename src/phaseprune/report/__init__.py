"""What a result says: a view a command, which the terminal and the page show, and the figures."""
