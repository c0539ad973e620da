"""Every backend against every other: worker functions (`catalogue`, `training`) and the tests that ask them."""
