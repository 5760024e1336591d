"""The isolated audit worker and the evidence: preparing, probing, remembering, printing, verifying."""
