"""What a person sees of a results folder. Reads it, never trains."""
