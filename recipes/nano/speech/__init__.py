"""Everything that is said in nano's world, synthesised."""
