// SPDX-License-Identifier: GPL-2.0
/*
 * The bus: /sys/bus/simnic/new_device and del_device take a number, and there is the device simnicN, with sriov_numvfs and its
 * relatives as a PCI device has them. A VF is a device of the bus too, simnicNvM, and has a driver of its own that makes the netdev.
 */
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include "simnic.h"

static unsigned int devices = 1;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "how many devices there are from the beginning");

struct dentry *simnic_debugfs;

/* A device of the bus, a NIC that is. */
struct simnic_device {
	struct list_head list;
	struct device dev;
	unsigned int id;
};

static LIST_HEAD(all);
static DEFINE_MUTEX(all_lock); /* all, closing */
static bool closing;

static struct simnic_vf *to_vf(struct device *dev)
{
	return container_of(dev, struct simnic_vf, dev);
}

static ssize_t sriov_numvfs_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct simnic *nic;
	ssize_t n = -ENODEV;

	device_lock(dev);
	nic = dev_get_drvdata(dev);
	if (nic)
		n = sysfs_emit(buf, "%u\n", nic->num_vfs);
	device_unlock(dev);
	return n;
}

static ssize_t sriov_numvfs_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct simnic *nic;
	unsigned int n;
	int err;

	err = kstrtouint(buf, 0, &n);
	if (err)
		return err;
	device_lock(dev);
	nic = dev_get_drvdata(dev);
	if (nic) {
		devl_lock(priv_to_devlink(nic));
		err = simnic_vfs_set(nic, n);
		devl_unlock(priv_to_devlink(nic));
	} else {
		err = -ENODEV;
	}
	device_unlock(dev);
	return err ?: count;
}
static DEVICE_ATTR_RW(sriov_numvfs);

static ssize_t sriov_totalvfs_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", SIMNIC_MAX_VFS);
}
static DEVICE_ATTR_RO(sriov_totalvfs);

static ssize_t sriov_drivers_autoprobe_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct simnic *nic;
	ssize_t n = -ENODEV;

	device_lock(dev);
	nic = dev_get_drvdata(dev);
	if (nic)
		n = sysfs_emit(buf, "%u\n", nic->autoprobe);
	device_unlock(dev);
	return n;
}

static ssize_t sriov_drivers_autoprobe_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct simnic *nic;
	bool on;
	int err;

	err = kstrtobool(buf, &on);
	if (err)
		return err;
	device_lock(dev);
	nic = dev_get_drvdata(dev);
	if (nic)
		WRITE_ONCE(nic->autoprobe, on);
	else
		err = -ENODEV;
	device_unlock(dev);
	return err ?: count;
}
static DEVICE_ATTR_RW(sriov_drivers_autoprobe);

static struct attribute *nic_attrs[] = {
	&dev_attr_sriov_numvfs.attr,
	&dev_attr_sriov_totalvfs.attr,
	&dev_attr_sriov_drivers_autoprobe.attr,
	NULL
};
ATTRIBUTE_GROUPS(nic);

static void nic_release(struct device *dev)
{
	kfree(container_of(dev, struct simnic_device, dev));
}

static const struct device_type nic_type = {
	.name = "nic",
	.groups = nic_groups,
	.release = nic_release,
};

static void vf_release(struct device *dev)
{
	kfree(to_vf(dev));
}

static const struct device_type vf_type = {
	.name = "vf",
	.release = vf_release,
};

static int new_device(unsigned int id);
static int del_device(unsigned int id);

static ssize_t device_store(const char *buf, size_t count, int (*change)(unsigned int id))
{
	unsigned int id;
	int err;

	err = kstrtouint(buf, 0, &id);
	if (err)
		return err;
	mutex_lock(&all_lock);
	err = closing ? -ENODEV : change(id);
	mutex_unlock(&all_lock);
	return err ?: count;
}

static ssize_t new_device_store(struct bus_type *bus, const char *buf, size_t count)
{
	return device_store(buf, count, new_device);
}
static BUS_ATTR_WO(new_device);

static ssize_t del_device_store(struct bus_type *bus, const char *buf, size_t count)
{
	return device_store(buf, count, del_device);
}
static BUS_ATTR_WO(del_device);

static struct attribute *bus_attrs[] = {
	&bus_attr_new_device.attr,
	&bus_attr_del_device.attr,
	NULL
};
ATTRIBUTE_GROUPS(bus);

static int num_vf(struct device *dev)
{
	struct simnic *nic = dev->type == &nic_type ? dev_get_drvdata(dev) : NULL;

	return nic ? READ_ONCE(nic->num_vfs) : 0;
}

static int bus_match(struct device *dev, struct device_driver *drv);

static struct bus_type simnic_bus = {
	.name = KBUILD_MODNAME,
	.bus_groups = bus_groups,
	.match = bus_match,
	.num_vf = num_vf,
};

static int nic_probe(struct device *dev)
{
	struct simnic_device *sd = container_of(dev, struct simnic_device, dev);
	struct devlink *devlink;
	struct simnic *nic;
	int err;

	nic = simnic_alloc(dev, sd->id);
	if (!nic)
		return -ENOMEM;
	devlink = priv_to_devlink(nic);
	devl_lock(devlink);
	err = simnic_start(nic);
	devl_unlock(devlink);
	if (err) {
		ida_destroy(&nic->sf_slots);
		devlink_free(devlink);
		return err;
	}
	dev_set_drvdata(dev, nic);
	devlink_register(devlink);
	simnic_debugfs_add(nic);
	return 0;
}

static int nic_remove(struct device *dev)
{
	struct simnic *nic = dev_get_drvdata(dev);
	struct devlink *devlink = priv_to_devlink(nic);

	debugfs_remove(nic->debugfs);
	devlink_unregister(devlink);
	devl_lock(devlink);
	simnic_stop(nic);
	devl_unlock(devlink);
	dev_set_drvdata(dev, NULL);
	ida_destroy(&nic->sf_slots);
	devlink_free(devlink);
	return 0;
}

static struct device_driver nic_driver = {
	.name = KBUILD_MODNAME,
	.bus = &simnic_bus,
	.owner = THIS_MODULE,
	.probe = nic_probe,
	.remove = nic_remove,
};

/* As pci_device_probe: with autoprobe off nobody gets a VF, not even by bind. */
static int vf_probe(struct device *dev)
{
	struct simnic_vport *vport = &to_vf(dev)->vport;

	if (!READ_ONCE(vport->nic->autoprobe))
		return -ENODEV;
	return simnic_function_add(vport, dev);
}

static int vf_remove(struct device *dev)
{
	simnic_function_del(&to_vf(dev)->vport);
	return 0;
}

static struct device_driver vf_driver = {
	.name = "simnic_vf",
	.bus = &simnic_bus,
	.owner = THIS_MODULE,
	.probe = vf_probe,
	.remove = vf_remove,
};

static int bus_match(struct device *dev, struct device_driver *drv)
{
	return drv == (dev->type == &nic_type ? &nic_driver : &vf_driver);
}

static void virtfn(unsigned int n, char name[16])
{
	snprintf(name, 16, "virtfn%u", n);
}

/* vf_new makes the next VF: representor, device, and by its driver the netdev. */
static int vf_new(struct simnic *nic)
{
	unsigned int n = nic->num_vfs;
	struct simnic_vf *vf;
	char link[16];
	int err;

	vf = kzalloc(sizeof(*vf), GFP_KERNEL);
	if (!vf)
		return -ENOMEM;
	simnic_vport_init(&vf->vport, nic, SIMNIC_VF, n, SIMNIC_PORT_VF(n));
	device_initialize(&vf->dev);
	vf->dev.bus = &simnic_bus;
	vf->dev.type = &vf_type;
	vf->dev.parent = nic->dev;
	err = dev_set_name(&vf->dev, "%sv%u", dev_name(nic->dev), n);
	if (err)
		goto put;
	if (nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		err = simnic_representor_add(&vf->vport);
		if (err)
			goto put;
	}
	err = device_add(&vf->dev);
	if (err)
		goto representor;
	virtfn(n, link);
	err = sysfs_create_link(&nic->dev->kobj, &vf->dev.kobj, link);
	if (err)
		goto device;
	err = sysfs_create_link(&vf->dev.kobj, &nic->dev->kobj, "physfn");
	if (err)
		goto link;
	rtnl_lock();
	nic->vfs[n] = vf;
	WRITE_ONCE(nic->num_vfs, n + 1);
	rtnl_unlock();
	return 0;
link:
	sysfs_remove_link(&nic->dev->kobj, link);
device:
	device_del(&vf->dev);
representor:
	simnic_representor_del(&vf->vport);
put:
	put_device(&vf->dev);
	return err;
}

/* vf_del removes the last VF. */
static void vf_del(struct simnic *nic)
{
	unsigned int n = nic->num_vfs - 1;
	struct simnic_vf *vf = nic->vfs[n];
	char link[16];

	rtnl_lock();
	WRITE_ONCE(nic->num_vfs, n);
	nic->vfs[n] = NULL;
	rtnl_unlock();
	virtfn(n, link);
	sysfs_remove_link(&nic->dev->kobj, link);
	sysfs_remove_link(&vf->dev.kobj, "physfn");
	device_del(&vf->dev);
	simnic_representor_del(&vf->vport);
	put_device(&vf->dev);
}

/* simnic_vfs_set makes n VFs of none, or none of those there are; the devlink instance is locked. */
int simnic_vfs_set(struct simnic *nic, unsigned int n)
{
	int err = 0;

	if (n == nic->num_vfs)
		return 0;
	if (!nic->up)
		return -ENODEV;
	if (n > SIMNIC_MAX_VFS)
		return -ERANGE;
	if (n && nic->num_vfs)
		return -EBUSY; /* as with PCI: 0 first */
	while (!err && nic->num_vfs < n)
		err = vf_new(nic);
	if (err)
		n = 0;
	while (nic->num_vfs > n)
		vf_del(nic);
	return err;
}

static struct simnic_device *find_device(unsigned int id)
{
	struct simnic_device *sd;

	list_for_each_entry(sd, &all, list) {
		if (sd->id == id)
			return sd;
	}
	return NULL;
}

static int new_device(unsigned int id)
{
	struct simnic_device *sd;
	int err;

	if (find_device(id))
		return -EEXIST;
	sd = kzalloc(sizeof(*sd), GFP_KERNEL);
	if (!sd)
		return -ENOMEM;
	sd->id = id;
	device_initialize(&sd->dev);
	sd->dev.bus = &simnic_bus;
	sd->dev.type = &nic_type;
	err = dev_set_name(&sd->dev, "%s%u", KBUILD_MODNAME, id);
	if (!err)
		err = device_add(&sd->dev);
	if (err) {
		put_device(&sd->dev);
		return err;
	}
	list_add_tail(&sd->list, &all);
	return 0;
}

static int del_device(unsigned int id)
{
	struct simnic_device *sd = find_device(id);

	if (!sd)
		return -ENODEV;
	list_del(&sd->list);
	device_unregister(&sd->dev);
	return 0;
}

static int __init simnic_init(void)
{
	unsigned int i;
	int err;

	simnic_debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	err = bus_register(&simnic_bus);
	if (err)
		goto debugfs;
	err = driver_register(&nic_driver);
	if (err)
		goto bus;
	err = driver_register(&vf_driver);
	if (err)
		goto nic;
	err = auxiliary_driver_register(&simnic_sf_driver);
	if (err)
		goto vf;
	mutex_lock(&all_lock);
	for (i = 0; i < devices && !err; i++)
		err = new_device(i);
	mutex_unlock(&all_lock);
	if (!err)
		return 0;
	mutex_lock(&all_lock);
	while (i-- > 0)
		del_device(i);
	mutex_unlock(&all_lock);
	auxiliary_driver_unregister(&simnic_sf_driver);
vf:
	driver_unregister(&vf_driver);
nic:
	driver_unregister(&nic_driver);
bus:
	bus_unregister(&simnic_bus);
debugfs:
	debugfs_remove(simnic_debugfs);
	return err;
}

static void __exit simnic_exit(void)
{
	mutex_lock(&all_lock);
	closing = true;
	while (!list_empty(&all))
		del_device(list_first_entry(&all, struct simnic_device, list)->id);
	mutex_unlock(&all_lock);
	auxiliary_driver_unregister(&simnic_sf_driver);
	driver_unregister(&vf_driver);
	driver_unregister(&nic_driver);
	bus_unregister(&simnic_bus);
	debugfs_remove(simnic_debugfs);
}

module_init(simnic_init);
module_exit(simnic_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A simulated NIC with an embedded switch, for tests");
