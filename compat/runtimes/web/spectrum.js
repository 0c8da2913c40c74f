// A mel power spectrum in WebGPU, from frames of audio: one workgroup for each frame.
//
// It is a radix-2 Stockham transform in shared memory (Govindaraju et al., "High performance
// discrete Fourier transforms on graphics processors", 2008). A workgroup has 256 invocations, in
// any shape. The arithmetic is the same for all shapes: a difference in time is the shape's.

const code = (x, y) => `
const HALF = 256u;
const HOP = 160u;
@group(0) @binding(0) var<storage, read> audio: array<f32>;
@group(0) @binding(1) var<storage, read> window: array<f32>;
@group(0) @binding(2) var<storage, read> filters: array<f32>;
@group(0) @binding(3) var<storage, read_write> mel: array<f32>;
var<workgroup> values: array<vec2f, 512>;
@compute @workgroup_size(${x}, ${y}, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let start = group.x * HOP;
  values[t] = vec2f(audio[start + t] * window[t], 0.0);
  values[t + HALF] = vec2f(audio[start + t + HALF] * window[t + HALF], 0.0);
  workgroupBarrier();
  for (var size = 1u; size < 2u * HALF; size *= 2u) {
    let k = t % size;
    let angle = -3.14159265358979 * f32(k) / f32(size);
    let turn = vec2f(cos(angle), sin(angle));
    let one = values[t];
    let two = values[t + HALF];
    let turned = vec2f(two.x * turn.x - two.y * turn.y, two.x * turn.y + two.y * turn.x);
    workgroupBarrier();
    let place = (t / size) * size * 2u + k;
    values[place] = one + turned;
    values[place + size] = one - turned;
    workgroupBarrier();
  }
  let bins = HALF + 1u;
  let mels = arrayLength(&filters) / bins;
  if (t < mels) {
    var sum = 0.0;
    for (var bin = 0u; bin < bins; bin += 1u) {
      sum += dot(values[bin], values[bin]) * filters[t * bins + bin];
    }
    mel[group.x * mels + t] = sum;
  }
}`;

export async function spectrum({ shape, dispatches, tensors: [audio, window, filters] }) {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  const device = await adapter.requestDevice();
  const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
  const inputs = [audio, window, filters].map(({ data }) => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: STORAGE | COPY_DST });
    device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  });
  const frames = Math.floor((audio.data.length - 512) / 160) + 1;
  const mels = filters.dims[0];
  const size = frames * mels * 4;
  const output = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
  const staging = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code: code(...shape) }), entryPoint: 'main' },
  });
  const bound = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [...inputs, output].map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const dispatch = () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bound);
    pass.dispatchWorkgroups(frames);
    pass.end();
    device.queue.submit([encoder.finish()]);
  };
  dispatch(); // Compiles the shader.
  await device.queue.onSubmittedWorkDone();
  const began = performance.now();
  for (let count = 0; count < dispatches; count += 1) dispatch();
  await device.queue.onSubmittedWorkDone();
  const each = (performance.now() - began) / dispatches;
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(output, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const data = new Float32Array(staging.getMappedRange().slice(0));
  device.destroy();
  return [{ each }, [{ dtype: 'float32', dims: [frames, mels], data }]];
}
