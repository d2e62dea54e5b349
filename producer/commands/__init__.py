"""One file a command; `producer.cli` imports each when it is used."""
