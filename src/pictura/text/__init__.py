"""From words to token ids."""
