#include "check.h"

long early_result(void);

int main(void)
{
	CHECK(early_result() == SESSION);
	return 0;
}
