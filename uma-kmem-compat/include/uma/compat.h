/*
 * What belongs to no system: policies, and where reports go. docs/compat.md of the project lists the
 * policies; they can also be set by the environment variable UMA_COMPAT.
 */
#ifndef UMA_COMPAT_H
#define UMA_COMPAT_H

#include <uma/bind.h>

UMA_C_BEGIN

/* Sets a policy, as uma_compat_set_policy("linux.misuse", "abort"). 0, or -1 if there is no such thing. */
int uma_compat_set_policy(const char *key, const char *value);

/*
 * Reports (misuse, objects that remain) go to this function, a line each without its end, or to the
 * standard error output if it is null. It may be called from any thread, and with no lock held.
 */
void uma_compat_set_reporter(void (*reporter)(const char *line));

UMA_C_END

#endif
