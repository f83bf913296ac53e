// What torch asks of a device that it cannot do without: in a process that loads this, a torch without CUDA has tensors
// on "cuda" that hold no values (FakeTensorMode).
#include <c10/core/impl/DeviceGuardImplInterface.h>

C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
