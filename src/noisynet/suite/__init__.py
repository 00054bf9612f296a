"""Many runs on Ray: games × presets × seeds, or a search."""
