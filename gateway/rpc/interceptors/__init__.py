"""The gates before every RPC, in order: deadline, authentication, validation, authorisation."""
