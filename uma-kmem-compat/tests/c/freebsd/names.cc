// The headers in C++, and where sources of FreeBSD look for them.
#include "../check.h"

#include <memory>
#include <stdexcept>

#include <uma/compat.h>
#include <uma/freebsd/sys/malloc.h>
#include <uma/freebsd/sys/smr.h>
#include <uma/freebsd/vm/uma.h>

static MALLOC_DEFINE(M_PLUS, "plus", "C++");

static int throwing_ctor(void *, int, void *, int)
{
	throw std::runtime_error("no");
}

int main()
{
	uma_zone_t zone =
		uma_zcreate("plus", 64, nullptr, nullptr, nullptr, nullptr, UMA_ALIGN_PTR, 0);
	void *item = uma_zalloc(zone, M_WAITOK | M_ZERO);

	CHECK(item != nullptr);
	uma_zfree(zone, item);
	uma_zdestroy(zone);
	free(malloc(10, M_PLUS, M_WAITOK), M_PLUS);
	std::free(std::malloc(10));
	smr_t smr = smr_create("plus", 0, 0);
	smr_enter(smr);
	smr_exit(smr);
	smr_destroy(smr);
	CHECK_ABORTS("an exception thrown by a callback", {
		uma_zone_t thrower = uma_zcreate("throws", 64, throwing_ctor, nullptr, nullptr, nullptr,
						 UMA_ALIGN_PTR, 0);
		uma_zalloc(thrower, M_WAITOK);
	});
	return 0;
}
