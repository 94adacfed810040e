/* Policies can be set, and what is none is refused. */
#include "../check.h"

#include <uma/compat.h>

int main(void)
{
	CHECK_EQ(uma_compat_set_policy("linux.misuse", "abort"), 0);
	CHECK_EQ(uma_compat_set_policy("linux.misuse", "report"), 0);
	CHECK_EQ(uma_compat_set_policy("linux.misuse", "perhaps"), -1);
	CHECK_EQ(uma_compat_set_policy("minix.misuse", "abort"), -1);
	CHECK_EQ(uma_compat_set_policy("linux.mis\xff", "abort"), -1);
	CHECK_EQ(uma_compat_set_policy(NULL, "abort"), -1);
	CHECK_EQ(uma_compat_set_policy("linux.misuse", NULL), -1);
	CHECK_EQ(uma_compat_set_policy("", ""), -1);
	return 0;
}
