"""What can be said with confidence: noise, intervals, effects, and which settings may be the best one."""
