"""The explorer: a notebook that is also the page of `ftw explore`, and the queries and charts that it is made of."""
