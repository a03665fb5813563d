"""Takes order numbers from Redis and marks the orders as shipped in PostgreSQL."""

from shop import Redis, sql

redis = Redis()
print("waiting for orders")
while True:
    _, order = redis("BLPOP", "orders", 0)
    sql("update orders set shipped = true where id = :'order'::bigint", order=order)
    print(f"shipped order {order}")
