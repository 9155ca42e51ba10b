"""TODO service/admission."""
