"""Who may call the public port, and from which pages: keys, Host names, Origins.

bearer      tokens and keys, compared in constant time; the admin API's too
hosts       the names that are this service's own; the admin API's too
origins     pages of other sites, and what CORS tells their browsers
middleware  the ASGI layer that asks the three before a request's body is read
document    what of it the OpenAPI document says
"""
