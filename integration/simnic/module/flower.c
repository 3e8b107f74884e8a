// SPDX-License-Identifier: GPL-2.0
/* Flower filters. */
#include "simnic.h"

int simnic_setup_tc(struct net_device *dev, enum tc_setup_type type, void *type_data)
{
	return -EOPNOTSUPP;
}

int simnic_indirect_set(struct simnic *nic, bool on)
{
	return 0;
}

bool simnic_has_rules(struct net_device *dev)
{
	return false;
}
