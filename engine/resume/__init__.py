"""How a run goes on after a stop: what makes a command the same, who owns a result, its finished shards."""
