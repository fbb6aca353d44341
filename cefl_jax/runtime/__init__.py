"""What writes files and talks to the user during a run."""
