"""Makes pages of the site from their sources: settings, commands, notebooks and texts of the repository."""
