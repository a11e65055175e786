"""A campaign of kill -9 against `clickstream run`: see campaign.py."""
