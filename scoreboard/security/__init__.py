"""What proves who somebody is: access tokens, action signatures, refresh tokens, passwords. Pure, given keys and now,
but for passwords."""
