"""What is acceptable and who may do what: the engine and the dated packs of rules."""
