"""What an experiment must show: `form` reads it from the experiment's file, `measure` holds it against the tables."""
