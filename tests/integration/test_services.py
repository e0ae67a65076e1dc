import psycopg2
import redis


def test_private_postgres_and_redis_answer(database_url: str, redis_url: str) -> None:
    connection = psycopg2.connect(database_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 41 + 1")
        assert cursor.fetchone() == (42,)
    connection.close()
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
