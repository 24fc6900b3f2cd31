"""The file stream: stages, scheduler, statistics, trace."""
