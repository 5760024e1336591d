"""What the product costs and how often its audits miss; a package, since others install one of this name."""
