"""From runs and a profile to jobs: profiles, the plan, its submission, and the pool on this machine."""
