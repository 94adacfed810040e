/* Functions that do nothing: what calls into a library cost by themselves. */
void *empty_alloc(void *cache, int flags);
void empty_free(void *cache, void *object);

void *empty_alloc(void *cache, int flags)
{
	(void)flags;
	return cache;
}

void empty_free(void *cache, void *object)
{
	(void)cache, (void)object;
}
