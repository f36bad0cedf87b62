"""Problems as people report them in public, rebuilt in our own words, by which verdicts and causes are scored."""
