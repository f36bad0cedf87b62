"""Where pieces run: today, processes of this machine."""
