-- Neovim against the language server, whose path and folders are in the environment. Neovim 0.7 has no
-- `vim.lsp.start` yet.
local function check(condition, what)
  if not condition then
    io.stderr:write('not so: ' .. what .. '\n' .. vim.inspect(vim.diagnostic.get(0)) .. '\n')
    vim.cmd('cquit')
  end
end

local function eventually(condition, what)
  check(vim.wait(60000, condition, 5), what)
end

local shown = {}
local client = vim.lsp.start_client({
  name = 'wgsl',
  cmd = { vim.env.SERVER, '--cache-dir', vim.env.CACHE, '--out', vim.env.OUT },
  root_dir = vim.env.PROJECT,
  handlers = {
    ['window/showMessage'] = function(_, result)
      table.insert(shown, result.message)
    end,
  },
})
check(client, 'the server starts')
vim.cmd('edit ' .. vim.env.PROJECT .. '/main.wgsl')
local buffer = vim.api.nvim_get_current_buf()
vim.lsp.buf_attach_client(buffer, client)
eventually(function()
  return vim.lsp.buf_is_attached(buffer, client)
end, 'attached')

local function diagnostics()
  return vim.diagnostic.get(buffer)
end

-- Open, edit fast, break, mend.
local function line(text)
  vim.api.nvim_buf_set_lines(buffer, 1, 2, false, { text })
end
for number = 1, 500 do
  line('fn f() -> u32 { return ' .. number .. 'u; }')
  if number % 50 == 0 then
    vim.wait(1)
  end
end
line('/* \xc3\xa9\xf0\x9f\x98\x80 */ fn f() -> u32 { return nothing; }')
eventually(function()
  return #diagnostics() == 1
end, 'one error')
local error = diagnostics()[1]
local text = vim.api.nvim_buf_get_lines(buffer, error.lnum, error.lnum + 1, false)[1]
check(text:sub(error.col + 1, error.end_col) == 'nothing', 'the error is where it is')
-- What comes is undone by itself.
vim.cmd('let &g:undolevels = &g:undolevels')
line('fn f() -> u32 { return 7u; }')
eventually(function()
  return #diagnostics() == 0
end, 'mended')
vim.cmd('undo')
eventually(function()
  return #diagnostics() == 1
end, 'undone')
vim.cmd('redo')
eventually(function()
  return #diagnostics() == 0
end, 'done again')
vim.cmd('silent write')

local function ask(method, params)
  local answers, reason = vim.lsp.buf_request_sync(buffer, method, params, 60000)
  check(answers and answers[client], method .. ': ' .. tostring(reason))
  local answer = answers[client]
  check(not answer.err, method .. ': ' .. vim.inspect(answer.err))
  return answer.result
end

local document = { uri = vim.uri_from_bufnr(buffer) }
local place = { textDocument = document, position = { line = 0, character = 0 } }
check(ask('textDocument/hover', place).contents.value:find('MSL: not compiled yet'), 'hover')
local lenses = ask('textDocument/codeLens', { textDocument = document })
check(#lenses == 3, 'code lenses')
for _, lens in ipairs(lenses) do
  local done = ask('workspace/executeCommand', lens.command)
  local file = io.open(vim.uri_to_fname(done.uri), 'rb')
  check(file and #file:read('*a') == done.bytes, lens.command.title)
end
eventually(function()
  return #shown == 3
end, 'told of three files')
check(ask('textDocument/hover', place).contents.value:find('in memory'), 'hover again')
local status = ask('workspace/executeCommand', { command = 'wgsl.status' })
check(status.requests == 0, 'no request is left')

-- Close, and end.
vim.cmd('bdelete')
vim.lsp.stop_client(client)
eventually(function()
  return vim.lsp.get_client_by_id(client) == nil
end, 'the server ends')
io.stdout:write('all is well\n')
vim.cmd('qall!')
