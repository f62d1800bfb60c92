"""Where what is said goes beside the log: terminal, browser, broker."""
